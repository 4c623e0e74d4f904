create schema trace;
comment on schema trace is 'The tree of one trace: its spans, found in the rows of all tables, and the rows that lost their cause.';
