-- A customer owns a /64 of IPv6 and may send each request from a different address in it.
create function audit._address_group(p_ip_address inet) returns text
language sql immutable parallel safe
return case
  when p_ip_address is null then 'unknown'
  when family(p_ip_address) = 6 then network(set_masklen(p_ip_address, 64))::text
  else host(p_ip_address)
end;

comment on function audit._address_group(inet) is
  'Return the group that counts as one address: the IPv4 address, or the /64 of an IPv6 address.';
