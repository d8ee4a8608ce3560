"""Pure rules: no I/O, no clock of its own, no AWS. Imports the standard library only."""
