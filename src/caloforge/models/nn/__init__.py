"""Neural-network blocks that two model families share."""
