"""Figures: what they show (families), and how they are drawn for paper."""
