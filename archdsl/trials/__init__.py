"""Proposals that are tried before they are made: a text with a fault is checked again with each of them.

candidates.py thinks of edits, likely ones first; search.py checks the text with each, within a budget of work, and says what is known then: which
fixes are right, where the fault is, and which faults follow from another one. It runs when there is an error, and for `check` alone.
"""
