"""From the folders of runs to a page about them: python -m dt_jax report runs/*."""
