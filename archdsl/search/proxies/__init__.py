"""Zero-cost proxies: what an untrained network tells about what it will learn."""
