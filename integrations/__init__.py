"""Ways into the programs that people run, and for their models into this library. The other libraries stay optional."""
