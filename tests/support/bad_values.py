"""Values that a client may send and that must be refused or cleaned."""

import string

from hypothesis import strategies as st

NOT_NUMBERS = ["2_7", "+1", "01", "1.0", "%201", "1%20", "%EF%BC%91", "%D9%A1", "-1", "0x1", "1e0", "", "true", "1%00"]


NOT_TIMES = ["1700000000", "1_7", "2026-01-05", "2026-01-05T12:00:00", "1e9", "now", "2026-W01-1T00:00Z"]


HOSTILE_CHARACTERS = "\x00\n\r\t\x1b\x1f\\|\x7f\x85\u00ad\u200b\u202e\u2028\u2066\ufeff\ud800\udfff\U0001f600é"


hostile_text = st.text(
    st.one_of(
        st.sampled_from(HOSTILE_CHARACTERS), st.characters(exclude_categories=()), st.sampled_from(string.printable)
    ),
    max_size=60,
)
