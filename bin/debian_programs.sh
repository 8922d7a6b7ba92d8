# shellcheck shell=bash
# Sourced by bin/test, from the repository's root: takes programs that tests need and pip does not offer from Debian's
# packages into .venv. PostgreSQL, PgBouncer, Chromium, FFmpeg and podman alone are installed on the system, which needs root.
# Requires .venv and the functions of bin/environment.sh.

# Run a command as root, directly or through sudo without a password; return 1 when neither is possible.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif sudo -n true 2>/dev/null; then
    sudo -n "$@"
  else
    return 1
  fi
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" ||
    { as_root apt-get update -qq &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"; }
}

have() { command -v "$1"; }

# Debian keeps them in folders that are not on every account's PATH.
have_postgres() { have initdb || compgen -G "/usr/lib/postgresql/*/bin/initdb"; }
have_pgbouncer() { have pgbouncer || [ -x /usr/sbin/pgbouncer ]; }

# Fetch a program unless it is present, and note it in $missing where that fails: provide NAME IS_PRESENT FETCH REMEDY
provide() {
  "$2" "$1" >/dev/null 2>&1 && return 0
  say "fetching $1 from Debian's packages"
  $3 >"$scratch/output" 2>&1 && return 0
  tail -n 3 "$scratch/output" >&2
  say "$1 is missing and could not be provided; $4 (or bin/test --without $1)"
  missing+=" $1"
}

# Provide the programs named in $1; sets $missing to those that could not be provided.
provide_programs() {
  local program scratch
  missing=""
  scratch=$(mktemp -d)
  for program in $1; do
    case $program in
      promtool) provide promtool have fetch_promtool "run: sudo apt install prometheus" ;;
      prometheus) provide prometheus have_prometheus fetch_prometheus "run: sudo apt install prometheus prometheus-alertmanager" ;;
      podman) provide podman have_containers "apt_install podman runc buildah catatonit mmdebstrap" "run: sudo apt install podman runc buildah catatonit mmdebstrap" ;;
      redis-server) provide redis-server is_redis_7 fetch_redis_server "install Redis 7 so that redis-server is on PATH" ;;
      postgres) provide postgres have_postgres "apt_install postgresql" "run: sudo apt install postgresql" ;;
      rabbitmq) provide rabbitmq have_rabbitmq fetch_rabbitmq "run: sudo apt install rabbitmq-server" ;;
      pgbouncer) provide pgbouncer have_pgbouncer "apt_install pgbouncer" "run: sudo apt install pgbouncer" ;;
      nginx) provide nginx have_nginx fetch_nginx "run: sudo apt install nginx" ;;
      chromium | ffmpeg) provide "$program" have "apt_install $program" "run: sudo apt install $program" ;;
    esac
  done
  [ -z "$1" ] || have_libfaketime >/dev/null || fetch_libfaketime >"$scratch/output" 2>&1 ||
    say "libfaketime is missing: tests set wrong clocks for Python code alone; run: sudo apt install libfaketime"
  rm -rf "$scratch"
}

# Download packages into the current folder, with fresh package lists where the system's are missing or outdated.
apt_download() {
  local ours=(-o "Dir::State=$scratch/apt" -o "Dir::Cache=$scratch/apt")
  apt-get download -qq "$@" && return 0
  mkdir -p "$scratch/apt/lists/partial" "$scratch/apt/archives/partial" &&
    apt-get "${ours[@]}" update -qq && apt-get "${ours[@]}" download -qq "$@"
}

# Download packages into the folder $1.
download() {
  mkdir -p "$1" && (cd "$1" && apt_download "${@:2}")
}

# Unpack every package in the folder $1 into that folder.
unpack() {
  local package
  for package in "$1"/*.deb; do dpkg-deb -x "$package" "$1" || return 1; done
}

fetch_promtool() {
  local folder=$scratch/promtool
  download "$folder" prometheus &&
    dpkg-deb --fsys-tarfile "$folder"/*.deb | tar -x -C "$folder" ./usr/bin/promtool &&
    mv "$folder/usr/bin/promtool" .venv/bin/promtool
}

# For bin/test --part containers, which needs root: mounts and control groups.
have_containers() { have podman && have runc && have buildah && have mmdebstrap; }

# The servers alone, for bin/test --part pager: the packages would start them. Alertmanager has the folder of its templates
# written into it.
have_prometheus() { have prometheus && have prometheus-alertmanager && [ -d /usr/share/prometheus/alertmanager ]; }
fetch_prometheus() {
  local folder=$scratch/prometheus name
  download "$folder" prometheus prometheus-alertmanager && unpack "$folder" || return 1
  as_root mkdir -p /usr/share/prometheus && as_root cp -r "$folder/usr/share/prometheus/alertmanager" /usr/share/prometheus/ || return 1
  for name in prometheus prometheus-alertmanager; do mv "$folder/usr/bin/$name" .venv/bin/ || return 1; done
}

# The program alone: the package would start a server.
have_nginx() { have nginx || [ -x /usr/sbin/nginx ]; }
fetch_nginx() {
  local folder=$scratch/nginx
  download "$folder" nginx && dpkg-deb --fsys-tarfile "$folder"/*.deb | tar -x -C "$folder" ./usr/sbin/nginx &&
    mv "$folder/usr/sbin/nginx" .venv/bin/nginx && .venv/bin/nginx -v
}

have_libfaketime() { compgen -G ".venv/lib/faketime/libfaketimeMT.so.1" || compgen -G "/usr/lib/*/faketime/libfaketimeMT.so.1"; }

fetch_libfaketime() {
  local folder=$scratch/libfaketime
  download "$folder" libfaketime && unpack "$folder" && mkdir -p .venv/lib/faketime &&
    cp "$folder"/usr/lib/*/faketime/libfaketimeMT.so.1 .venv/lib/faketime/
}

# Whether the program $1 is Redis 7 or newer, and not Valkey, which also installs a redis-server.
is_redis_7() {
  [[ $("$1" --version 2>/dev/null) =~ ^Redis\ server\ v=([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 7 ]
}

missing_libraries() { ldd "$1" | awk '/not found/ { print $1 }'; }

# Print the library packages that the packages in the folder $1 depend on and this system lacks.
missing_library_packages() {
  local package
  for package in "$1"/*.deb; do dpkg-deb -f "$package" Depends; done | tr ',' '\n' | sed -n 's/^ *\(lib[^ :(|]*\).*/\1/p' |
    sort -u | while read -r package; do
      [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# Install the server and the libraries that this system lacks into .venv/lib/redis-server, and a wrapper that sets the
# library path into .venv/bin. Debian's redis-server is a link into redis-tools.
fetch_redis_server() {
  local folder=$scratch/redis-server home=.venv/lib/redis-server program library packages=()
  download "$folder" redis-server redis-tools && unpack "$folder" && program=$(readlink -e "$folder/usr/bin/redis-server") || return 1
  rm -rf "$home" && mkdir "$home" && cp "$program" "$home/redis-server" || return 1
  if [ -n "$(missing_libraries "$program")" ]; then
    mapfile -t packages < <(missing_library_packages "$folder")
    [ ${#packages[@]} -eq 0 ] ||
      { download "$folder/libraries" "${packages[@]}" && unpack "$folder/libraries"; } || return 1
    for library in $(missing_libraries "$program"); do
      find "$folder/libraries" -name "$library" -exec cp -L {} "$home/" \;
    done
  fi
  cat >.venv/bin/redis-server <<'WRAPPER' && chmod +x .venv/bin/redis-server
#!/bin/sh
# Debian's Redis with the libraries that this system lacks; written by bin/test.
home=${0%/*}/../lib/redis-server
LD_LIBRARY_PATH=$home${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$home/redis-server" "$@"
WRAPPER
  .venv/bin/redis-server --version && is_redis_7 .venv/bin/redis-server
}

# The server itself and the parts of Erlang that it loads; no other package that they depend on is used.
RABBITMQ_PACKAGES=(rabbitmq-server erlang-base erlang-asn1 erlang-crypto erlang-eldap erlang-inets erlang-mnesia
  erlang-os-mon erlang-parsetools erlang-public-key erlang-runtime-tools erlang-ssl erlang-syntax-tools erlang-tools
  erlang-xmerl libtinfo6 libsctp1)

have_rabbitmq() { [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || [ -x .venv/bin/rabbitmq-server-unpacked ]; }

# Unpack the server and Erlang into .venv/lib/rabbitmq, and write a wrapper into .venv/bin. Debian's erl has its folder
# written into it. An epmd that the server would start is searched in that folder.
fetch_rabbitmq() {
  local folder=$scratch/rabbitmq home=$PWD/.venv/lib/rabbitmq
  download "$folder" "${RABBITMQ_PACKAGES[@]}" && unpack "$folder" || return 1
  rm -f "$folder"/*.deb && rm -rf "$home" && mv "$folder" "$home" || return 1
  sed -i "s|/usr/lib/erlang|$home/usr/lib/erlang|g" "$home/usr/lib/erlang/bin/erl" || return 1
  cat >.venv/bin/rabbitmq-server-unpacked <<WRAPPER && chmod +x .venv/bin/rabbitmq-server-unpacked
#!/bin/sh
# Debian's RabbitMQ, unpacked; written by bin/test.
export PATH=$home/usr/lib/erlang/bin:\$PATH
export LD_LIBRARY_PATH=$home/lib/$(uname -m)-linux-gnu:$home/usr/lib/$(uname -m)-linux-gnu
epmd -daemon
exec $home/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server "\$@"
WRAPPER
}
