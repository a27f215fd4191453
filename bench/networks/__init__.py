"""The small networks of the problems, and how they are trained."""
