"""From trained networks to a verdict: what each answers and takes, the choice on validation images, and its words."""
