"""The functional J: what the final density costs, and what the flow costs on the way."""
