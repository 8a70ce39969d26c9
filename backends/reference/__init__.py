"""Reference implementations by subject; the class in base.py lists them."""
