"""The nouns of Sensorium and what they rest on."""
