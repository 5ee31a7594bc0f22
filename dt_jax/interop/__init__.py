"""Trained networks in other programs' files: CORL's, Hugging Face's, safetensors."""
