"""How a program starts: flags, session, sections of the config as objects, schedule, installed commands."""
