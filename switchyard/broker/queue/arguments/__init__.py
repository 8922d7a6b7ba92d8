"""Arguments with types: what an actor's annotations say of the values that its messages carry as JSON."""
