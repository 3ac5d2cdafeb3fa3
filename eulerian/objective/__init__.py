"""What is to be small: the loss at the final time and the costs along the way."""
