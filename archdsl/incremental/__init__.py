"""Checking a text again after an edit: what the edit does not reach is not read, elaborated or looked through a second time.

pieces.py cuts the text into pieces, each some declarations, and reads those that are new; check.py keeps what was found out about the others.
What comes out is what a check from nothing gives, to the last character: tests/incremental holds both against each other.
"""
