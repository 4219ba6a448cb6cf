"""What the command line can be told to do: a module for each verb, in which a dataclass holds its options."""
