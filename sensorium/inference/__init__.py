"""Answering: the generator and sampling."""
