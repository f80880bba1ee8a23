"""Machine-learning models: their signatures, formats (flavors), registry and cache."""
