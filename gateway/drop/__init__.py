"""Mail that comes as files: the maildrop of gateway-sendmail, and folders that operators name (setting ``pickup``)."""
