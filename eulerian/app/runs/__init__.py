"""What remains of a run: its folder, numbers, ParaView files and figures."""
