"""Measures one actor in pools of several kinds and widths; an app only in the processes that are measured."""
