"""Gymnasium environments for models that write Python to look at images and videos."""
