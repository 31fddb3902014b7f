"""Supernets: every candidate of a space in one set of weights. `spec.supernet()` makes one; torch is loaded then."""
