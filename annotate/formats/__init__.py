"""Label formats, a module each: plain parsing functions, and readers and writers on top of them."""
