"""Recipes, the training loop, and what belongs to it."""
