// What the server answers, as far as the dashboard reads it. docs/monitoring.md describes all of it.

export interface Varz {
  server_id: string;
  server_name: string;
  version: string;
  go: string;
  host: string;
  port: number;
  auth_required?: boolean;
  tls_required?: boolean;
  max_connections: number;
  max_subscriptions?: number;
  ping_interval: number;
  max_control_line: number;
  max_payload: number;
  max_pending: number;
  write_deadline: number;
  start: string;
  now: string;
  uptime: string;
  mem: number;
  cores: number;
  gomaxprocs: number;
  cpu: number;
  connections: number;
  total_connections: number;
  in_msgs: number;
  out_msgs: number;
  in_bytes: number;
  out_bytes: number;
  slow_consumers: number;
  stale_connections?: number;
  stalled_clients?: number;
  subscriptions: number;
  config_load_time: string;
  jetstream?: { config?: object };
  ringmain?: string;
}

export interface Connection {
  cid: number;
  type: string;
  ip: string;
  port: number;
  start: string;
  stop?: string;
  reason?: string;
  rtt: string;
  uptime: string;
  idle: string;
  pending_bytes: number;
  in_msgs: number;
  out_msgs: number;
  in_bytes: number;
  out_bytes: number;
  stalls?: number;
  subscriptions: number;
  name?: string;
  lang?: string;
  version?: string;
  tls_version?: string;
  authorized_user?: string;
  account?: string;
  subscriptions_list_detail?: Subscription[];
  ringmain?: { worker?: number; waiting_since?: string; behind_since?: string };
}

export interface Connz {
  now: string;
  total: number;
  connections: Connection[] | null;
  ringmain?: { found: number };
}

export interface Subscription {
  account?: string;
  subject: string;
  qgroup?: string;
  sid: string;
  msgs: number;
  max?: number;
  cid: number;
}

export interface Subsz {
  num_subscriptions: number;
  num_cache: number;
  num_inserts: number;
  num_removes: number;
  num_matches: number;
  cache_hit_rate: number;
  max_fanout: number;
  avg_fanout: number;
  total: number;
  subscriptions_list?: Subscription[];
}

export interface AccountStat {
  acc: string;
  name?: string;
  conns: number;
  leafnodes: number;
  num_subscriptions: number;
  sent: { msgs: number; bytes: number };
  received: { msgs: number; bytes: number };
  slow_consumers: number;
}

export interface Accstatz {
  now: string;
  account_statz: AccountStat[] | null;
}

export interface Healthz {
  status: string;
  error?: string;
  errors?: { error: string }[];
}

export interface ConsumerState {
  stream_name: string;
  name: string;
  delivered: { stream_seq: number };
  num_ack_pending: number;
  num_redelivered: number;
  num_waiting: number;
  num_pending: number;
}

export interface StreamState {
  name: string;
  state: { messages: number; bytes: number; first_seq: number; last_seq: number; consumer_count: number };
  cluster?: { leader?: string };
  consumer_detail?: ConsumerState[];
}

export interface Jsz {
  memory: number;
  storage: number;
  config?: { max_memory: number; max_storage: number };
  api: { total: number; errors: number };
  streams: number;
  consumers: number;
  messages: number;
  bytes: number;
  total?: number;
  account_details?: { name: string; stream_detail?: StreamState[] }[];
}
