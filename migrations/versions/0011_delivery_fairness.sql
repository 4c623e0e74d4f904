-- What delivery must remember to notice a receiver that hangs.

alter table delivery.lanes add column hangs integer not null default 0;
comment on column delivery.lanes.hangs is 'Attempts in a row that ran into their deadline; from the third on each pauses the channel.';
