"""Training: new and resumed runs."""
