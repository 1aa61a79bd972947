"""Jobs: asking for them, whose turn it is, who runs one, how an attempt ends, what waits and why."""
