"""The operator's pages, under ``/ui``: plain HTML from the server, one style sheet, one script that nobody needs.

How a page is made:

- ``routes.PAGES`` has one row for each: verb, path, handler, and the role that it takes. A handler gets a ``Visit``
  (who asks, the request, the fields of a form) and returns a ``View``: a template and its values; or ``visit.go``,
  which is the answer to every POST that changed something. Its data come from the functions behind the API.
- A template extends ``frame.html`` and fills the blocks ``title``, ``main`` and, where it is not the verdict alone,
  ``head``. ``macros.html`` has what stands on many pages: icon, tag, problem, button, empty, flash, code, row.
- A part that the script fetches anew is a block inside ``main`` within ``<div data-part="now" data-every="15">``. With
  the header ``X-Part: now`` the same handler runs and only that block is rendered; for ``X-Part: state-office`` it is
  the block ``state``, and ``part`` is ``office``. A part with the focus, a tick or an open ``<details>`` in it is left.
- Every text is escaped, its control and bidi characters are shown, and it is cut at 300 characters: ``frame.finalize``
  does that to whatever a template prints. ``|whole`` is for what must be exact: URLs, values of fields.
- Times: ``{{ at|time }}``, ``|hour``, ``|day``, ``|ago``; also ``|span`` (seconds), ``|size`` (bytes), ``|number``,
  ``n|count("message")``. Addresses: ``url("/ui/messages", state="held")``.
- A macro with two slots: ``{% call(slot) m.problem("bad", heading) %}{% if slot == "act" %}{{ m.button(...) }}{% else
  %}<p>...</p>{% endif %}{% endcall %}``.
- A form is ``<form method="post">`` with ``{{ token }}`` in it; no form and no button where ``not may("operate")``.
- ``visit.say(text, tone)`` keeps a line for the page that comes next, ``visit.go`` carries its number in the address.
"""
