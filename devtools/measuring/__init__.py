"""Measurement of one actor in pools of several kinds and sizes; installed as an app only in the measured processes."""
