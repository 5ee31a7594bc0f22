"""Networks; nothing in here knows of reinforcement learning but the last file."""
