from __future__ import annotations

from django.utils.safestring import SafeString

from switchyard.frame.templatetags.switchyard_frame import with_labels

HEADERS = [{"text": SafeString('<input type="checkbox">')}, {"text": "month"}, {"text": 'a "b"'}]


def test_cells_of_a_list_name_their_column_but_the_heading_and_the_box() -> None:
    cells = [
        SafeString('<td class="action-checkbox"><input></td>'),
        SafeString('<th class="field-month">2026-10</th>'),
        SafeString('<td class="field-b">&lt;b&gt;</td>'),
    ]

    shown = with_labels(cells, HEADERS)

    assert shown[:2] == cells[:2]
    assert shown[2] == '<td data-label="A &quot;b&quot;" class="field-b">&lt;b&gt;</td>'
