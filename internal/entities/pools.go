package entities

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"

	"incusd/api"
	"incusd/internal/localstore"
	"incusd/internal/raftstore"
	"incusd/internal/raftstore/state"
	"incusd/internal/storage"
)

// CreatePool makes a storage pool, or does one of the two steps: with target, it defines the pool
// for that member.
func (s *Service) CreatePool(ctx context.Context, post api.StoragePoolsPost, target string, by *api.EventRequestor) error {
	if err := s.machine.cfg.Storage.CheckDriver(ctx, post.Driver); err != nil {
		return err
	}
	config, err := storage.ValidatePool(post.Driver, post.Config)
	if err != nil {
		return err
	}
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	return s.create(ctx, view, state.Entity{
		Kind: state.EntityPool, Name: post.Name, Type: post.Driver, Description: post.Description, Config: config,
	}, target, by)
}

// UpdatePool changes a storage pool, or with target its part on that member. change gets the pool
// as it is and returns the new writable part; it may be called more than once.
func (s *Service) UpdatePool(ctx context.Context, name, target string, change func(api.StoragePool) (api.StoragePoolPut, error), by *api.EventRequestor) error {
	return repeat(func() error {
		view, err := s.store.Read(ctx)
		if err != nil {
			return err
		}
		now, err := Pool(view, name, target)
		if err != nil {
			return err
		}
		row, _ := view.Pool(name)
		put, err := change(*now)
		if err != nil {
			return err
		}
		config, err := storage.ValidatePool(row.Type, put.Config)
		if err != nil {
			return err
		}
		if _, err := updateOf(view, row, target, put.Description, config); err != nil {
			return err // whose key it is counts before whether it can be changed
		}
		if err := changeable(row, now.Config, config); err != nil {
			return err
		}
		return s.update(ctx, row, view, target, put.Description, config, by)
	})
}

// changeable refuses to change what a pool was made with.
func changeable(row *state.Entity, now, next map[string]string) error {
	if !row.Made {
		return nil
	}
	for _, key := range changedKeys(now, next) {
		if !storage.Changeable(row.Type, key) {
			return api.Errorf(api.ConfigInvalid, "Config key %q of storage pool %q cannot be changed", key, row.Name).
				WithHint("it is fixed when the pool is made")
		}
	}
	return nil
}

// changedKeys lists the keys whose value differs, in order.
func changedKeys(a, b map[string]string) []string {
	var keys []string
	for key, value := range merged(a, b) {
		if value != a[key] || value != b[key] {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// DeletePool removes a storage pool that nothing uses.
func (s *Service) DeletePool(ctx context.Context, name string, by *api.EventRequestor) error {
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	row, err := poolRow(view, name)
	if err != nil {
		return err
	}
	return s.remove(ctx, row, by)
}

// PoolResources measures a pool on this member.
func (s *Service) PoolResources(ctx context.Context, name string) (*api.ResourcesStoragePool, error) {
	row, err := poolRow(s.store.Local(), name)
	if err != nil {
		return nil, err
	}
	note, err := s.here(row)
	if err != nil {
		return nil, err
	}
	return s.machine.cfg.Storage.PoolResources(ctx, poolFrom(note))
}

// here is an entity as this member has it. It fails with the reason when it does not.
func (s *Service) here(row *state.Entity) (localstore.Made, error) {
	if note, ok := s.machine.note(row.ID); ok && note.Done {
		return note, nil
	}
	reason := row.Members[s.store.ID()].Reason
	if reason == "" {
		reason = "it is not made yet"
	}
	return localstore.Made{}, api.Errorf(api.Unavailable, "The %s %q is not there on this member: %s", words(row.Kind), row.Name, reason)
}

// CreateVolume makes a custom volume on a pool: on the member that target names, else on this one.
func (s *Service) CreateVolume(ctx context.Context, pool, project, target string, post api.StorageVolumesPost, by *api.EventRequestor) error {
	view, err := s.store.Read(ctx)
	if err != nil {
		return err
	}
	row, member, err := s.newVolume(view, pool, project, target, post)
	if err != nil {
		return err
	}
	made, err := s.propose(ctx, state.KindEntityCreate, row, by)
	if err != nil {
		return err
	}
	if member.Offline {
		return nil // it is made when the member is back
	}
	err = s.settled(ctx, made)
	if errors.Is(err, api.EntityFailed) {
		return s.takeBack(ctx, made, err, by)
	}
	return err
}

// newVolume works out the command that makes a volume, and on which member.
func (s *Service) newVolume(view *raftstore.View, pool, project, target string, post api.StorageVolumesPost) (state.EntityCreate, *state.Member, error) {
	var body state.EntityCreate
	on, ok := view.Pool(pool)
	if !ok || on.Deleting {
		return body, nil, api.Errorf(api.NotFound, "Storage pool not found")
	}
	if kind, _ := post.Source["type"].(string); kind != "" && kind != "none" {
		return body, nil, api.Errorf(api.NotImplemented, "Copying a storage volume is not implemented yet")
	}
	if post.ContentType == "" {
		post.ContentType = api.VolumeFilesystem
	}
	config, err := storage.ValidateVolume(on.Type, post.ContentType, withDefaults(on, post.Config))
	if err != nil {
		return body, nil, err
	}
	member, err := targeted(view, target)
	if err != nil {
		return body, nil, err
	}
	if member == nil {
		if member, ok = view.Member(s.store.ID()); !ok {
			return body, nil, api.MemberNotFound
		}
	}
	return state.EntityCreate{
		ID: uuid.NewString(), Kind: state.EntityVolume, Project: view.Owner(project, state.FeatureVolumes), Pool: pool, Name: post.Name, Type: post.ContentType,
		Description: post.Description, Config: config, MemberID: member.ID,
	}, member, nil
}

// withDefaults adds what the pool gives to volumes that do not say otherwise.
func withDefaults(pool *state.Entity, config map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range pool.Config {
		if option, ok := strings.CutPrefix(key, "volume."); ok {
			out[option] = value
		}
	}
	return merged(out, config)
}

// UpdateVolume changes a custom volume; change is as in UpdatePool.
func (s *Service) UpdateVolume(ctx context.Context, pool, project, name string, change func(api.StorageVolume) (api.StorageVolumePut, error), by *api.EventRequestor) error {
	return repeat(func() error {
		view, row, on, err := s.volume(ctx, pool, project, name)
		if err != nil {
			return err
		}
		put, err := change(volumeOf(view, row))
		if err != nil {
			return err
		}
		config, err := storage.ValidateVolume(on.Type, row.Type, put.Config)
		if err != nil {
			return err
		}
		next, err := s.propose(ctx, state.KindEntityUpdate, state.EntityUpdate{
			ID: row.ID, Expect: row.Hash(), Description: put.Description, Config: config,
		}, by)
		if err != nil {
			return basis(err)
		}
		return s.settled(ctx, next)
	})
}

// RenameVolume gives a custom volume another name.
func (s *Service) RenameVolume(ctx context.Context, pool, project, name, newName string, by *api.EventRequestor) error {
	_, row, _, err := s.volume(ctx, pool, project, name)
	if err != nil {
		return err
	}
	return s.rename(ctx, row, newName, by)
}

func (s *Service) rename(ctx context.Context, row *state.Entity, name string, by *api.EventRequestor) error {
	next, err := s.propose(ctx, state.KindEntityRename, state.EntityRename{ID: row.ID, Name: name}, by)
	if err != nil {
		return err
	}
	return s.settled(ctx, next)
}

// DeleteVolume removes a custom volume.
func (s *Service) DeleteVolume(ctx context.Context, pool, project, name string, by *api.EventRequestor) error {
	_, row, _, err := s.volume(ctx, pool, project, name)
	if err != nil {
		return err
	}
	return s.remove(ctx, row, by)
}

// volume finds a volume and the pool that it lies on.
func (s *Service) volume(ctx context.Context, pool, project, name string) (*raftstore.View, *state.Entity, *state.Entity, error) {
	view, err := s.store.Read(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	on, row, err := volumeRow(view, pool, project, name)
	return view, row, on, err
}
