"""The commands. Nothing heavy is imported here: gateway-sendmail shares this package and must start quickly."""
