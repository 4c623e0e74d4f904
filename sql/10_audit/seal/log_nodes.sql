create view audit.log_nodes as
select level, node_index, hash
from audit.tree_nodes;

comment on view audit.log_nodes is 'Inner nodes of the tree over the sealed blocks.';
