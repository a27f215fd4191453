"""Models of other libraries as denoisers: forms by name, by configuration, and checks of what was said."""
