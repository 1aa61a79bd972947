"""HTTP for producers: ask, look, cancel, retry, answer; projects; events; tickets for browsers."""
