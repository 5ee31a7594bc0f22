"""Agents in the file formats of other programs: CORL, Hugging Face, safetensors."""
