"""What the two CPU backends share."""
