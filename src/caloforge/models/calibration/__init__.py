"""The post-training calibration of generated showers."""
