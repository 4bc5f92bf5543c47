"""From the sections of a config to objects; programs import builders, never each other."""
