"""How a string becomes a player, and what scripted players have in common."""
