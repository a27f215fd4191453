"""Models: what they predict, what they are given, what is asked of them, and what is made of their answers."""
