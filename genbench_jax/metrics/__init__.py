"""Arrays in, numbers out: every number that says something about external images."""
