"""Pandas frames read from the results folder."""
