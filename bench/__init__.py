"""NFE against error, overhead, and the small networks that are measured."""
