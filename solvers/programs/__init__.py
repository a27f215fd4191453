"""The program: the table that a solver is, its entries, its interpreter, its JSON and its text."""
